"""Plain, frozen values that every layer shares. Nothing here does I/O."""
