"""Verbs that ask whose cluster it is before they connect (verify, probe)."""

from pathlib import Path

import pytest

from towpath.cli.beside import lab_of
from towpath.cli.exit import CliError


def test_a_kubeconfig_that_is_not_there_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="absent"):
        lab_of(str(tmp_path / "absent"), "")
