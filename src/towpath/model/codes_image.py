"""Codes TP8nnn: images, their build and audit."""

from towpath.model.code import Code

IMAGE: dict[str, Code] = {
    "TP8001": Code(
        title="An image cannot be built, or not be read",
        cause="A tool, an input or the image itself is missing or damaged; the message names it.",
        fix="Correct what the message names. Nothing was written outside the work folder.",
    ),
    "TP8002": Code(
        title="A package is not the one that was locked",
        cause="Its SHA-256 is not the lock's: the lock was edited, or the mirror delivers something else.",
        fix="Find out which of the two changed, and why, before `make image-refresh` accepts the new one.",
    ),
    "TP8003": Code(
        title="A locked package is no longer on the mirror",
        cause="Debian keeps only the newest version of a package; a patch has replaced the locked one.",
        fix="Take the patch with `make image-refresh`, or name a snapshot in TOWPATH_DEBIAN_MIRROR.",
    ),
}
