"""The Container Network Interface: types, versions, errors, and the server on the agent's socket."""
