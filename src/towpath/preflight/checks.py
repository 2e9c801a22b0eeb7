"""All checks that are made before an upgrade, in order."""

from towpath.preflight.engine_checks import ENGINE_CHECKS
from towpath.preflight.helm_checks import HELM_CHECKS
from towpath.preflight.kernel_checks import KERNEL_CHECKS
from towpath.preflight.node_checks import NODE_CHECKS
from towpath.preflight.release_checks import RELEASE_CHECKS
from towpath.preflight.rights_checks import RIGHTS_CHECKS

PREFLIGHT = tuple(
    sorted(
        (*RELEASE_CHECKS, *RIGHTS_CHECKS, *HELM_CHECKS, *NODE_CHECKS, *KERNEL_CHECKS, *ENGINE_CHECKS),
        key=lambda check: check.number,
    )
)
