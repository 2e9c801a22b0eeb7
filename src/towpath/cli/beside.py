"""The lab that a kubeconfig belongs to, if it is one's."""

from pathlib import Path

from towpath.cli.exit import CliError
from towpath.kube import config
from towpath.kube.errors import KubeError
from towpath.lab.client import LabClient
from towpath.lab.rundir import CONTROL


def lab_of(kubeconfig: str, context: str) -> LabClient | None:
    """The lab this kubeconfig belongs to: its control socket lies beside it. Raises CliError for none."""
    try:
        source = Path(config.load(kubeconfig, context).source.split(",")[0])
    except KubeError as e:
        raise CliError(str(e)) from e
    return LabClient(source.parent.name) if (source.parent / CONTROL).exists() else None
