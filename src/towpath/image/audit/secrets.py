"""Secrets in text, by the rules of detect-secrets; only those that look for a fixed form, not for chance."""

import re
from collections.abc import Iterator
from functools import cache

from towpath.image.audit.contents import Image
from towpath.image.audit.rules import Found

# Its detectors of high entropy and of words like "password" find too much that is none.
_RULES = (
    "artifactory.ArtifactoryDetector",
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "jwt.JwtTokenDetector",
    "mailchimp.MailchimpDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "private_key.PrivateKeyDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "twilio.TwilioKeyDetector",
)
_ASSIGNED = re.compile(
    r"(?i)\b[\w.-]*(password|passwd|secret|token|api_?key|access_?key|credential)s?\b\s*=\s*['\"]?([^\s'\"$<{]{6,})"
)
_HARMLESS = re.compile(r"(?i)^(/|true|false|none|null|changeme|file:|\*+$)")
_MOST = 1 << 20  # larger files are data


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    import importlib

    found = []
    for rule in _RULES:
        module, _, name = rule.partition(".")
        detector = getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), name)
        found += [(str(detector.secret_type), pattern) for pattern in detector.denylist]
    return tuple(found)


def secrets_in(text: str) -> list[str]:
    """Kinds of secrets that a line of configuration seems to hold, assignments to telling names included."""
    found = [kind for kind, pattern in _patterns() if pattern.search(text)]
    assigned = _ASSIGNED.search(text)
    if not found and assigned and not _HARMLESS.match(assigned[2]):
        found.append(f"a value for {assigned[1].lower()}")
    return list(dict.fromkeys(found))


def check_secrets(image: Image, trusted: set[str]) -> Iterator[Found]:
    """Text files but the ``trusted`` (unaltered files of packages are public), hidden ones included."""
    for file in [*image.files.values(), *image.hidden]:
        hidden = image.files.get(file.path) is not file
        if file.kind != "file" or not 0 < file.size <= _MOST or (file.path in trusted and not hidden):
            continue
        content = image.spool.read(file)
        if b"\0" in content[:4096]:
            continue
        text = content.decode(errors="replace")
        for kind, pattern in _patterns():
            if match := pattern.search(text):
                line = text.count("\n", 0, match.start()) + 1
                where = f", in layer {file.layer}, hidden by a later one" if hidden else ""
                yield Found(code="TP8130", path=f"{file.path}:{line}", message=f"looks like {kind}{where}")
