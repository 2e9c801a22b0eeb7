"""Verbs, inside: each connection to the control socket is served by one forked, throw-away process.

A handler is plain blocking code. It may enter any namespace and need not come back, since its process ends
with it; a caller that hangs up ends it too.
"""

import os
import socket
from contextlib import suppress

from towpath.lab import faults, inspection, lifecycle, sessions
from towpath.lab.conversation import Conversation, Verb
from towpath.lab.rundir import LabError
from towpath.lab.topology import LabSpec

VERBS: dict[str, Verb] = {**faults.VERBS, **inspection.VERBS, **lifecycle.VERBS, **sessions.VERBS}


def serve(connection: socket.socket, spec: LabSpec) -> None:
    """In a forked child: one verb, one answer."""
    os.setpgid(0, 0)
    conversation = Conversation(connection, spec)
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            name = conversation.read_verb()
            if name not in VERBS:
                raise LabError(f"there is no verb {name!r}")
            conversation.say(result=VERBS[name](conversation))
        except LabError as known:
            conversation.say(error=known.message, hint=known.hint, code=known.code)
        except Exception as failed:
            conversation.say(error=f"{type(failed).__name__}: {failed}")
            raise
