"""Who asks: static tokens (DIR/tokens.csv) and tokens issued to service accounts."""

import csv
from pathlib import Path

from towpath.lab.apiserver.call import Server, User
from towpath.lab.apiserver.errors import unauthorized


class TokensError(Exception):
    """tokens.csv cannot be read; the text names the line."""


def read_tokens(path: Path) -> dict[str, User]:
    """Rows of ``token,user,uid,"group1,group2"``, as kube-apiserver reads them. Raises TokensError."""
    found: dict[str, User] = {}
    try:
        with path.open(newline="") as f:
            for number, row in enumerate(csv.reader(f), 1):
                if not row or row[0].startswith("#"):
                    continue
                if len(row) < 3 or not row[0] or not row[1]:
                    raise TokensError(f"{path}:{number}: want token,user,uid[,groups]")
                groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
                found[row[0]] = User(row[1], row[2], (*groups, "system:authenticated"))
    except OSError as e:
        raise TokensError(f"{path}: {e.strerror}") from e
    return found


def authenticate(server: Server, header: str) -> User:
    """The user of an Authorization header. Raises ApiError 401."""
    kind, _, token = header.partition(" ")
    user = server.tokens.get(token.strip()) if kind.lower() == "bearer" else None
    if user is None:
        raise unauthorized()
    return user
