"""docs/security.md says of each container that Towpath renders as whom it runs and with what, and why."""

from typing import Any

from own_manifests import pods

from towpath.image.build import project


def row(pod: dict[str, Any], container: dict[str, Any]) -> str:
    """A line of the table."""
    own = container["securityContext"]
    user = str(own.get("runAsUser", "the image's"))
    added = ", ".join(own["capabilities"].get("add", ())) or "none"
    assert own["capabilities"]["drop"] == ["ALL"], container["name"]
    volumes = {one["name"]: one for one in pod.get("volumes", ())}
    mounted = [volumes[one["name"]] for one in container.get("volumeMounts", ())]
    projected = any("serviceAccountToken" in source for one in mounted
                    for source in one.get("projected", {}).get("sources", ()))  # fmt: skip
    token = "yes" if projected or pod.get("automountServiceAccountToken", True) else "none"
    spaces = [name for name in ("hostNetwork", "hostPID") if pod.get(name)]
    limits = ", ".join(container.get("resources", {}).get("limits", ())) or "none"
    escalation = "yes" if own["allowPrivilegeEscalation"] else "no"
    cells = (f"`{container['name']}`", user, added, token, ", ".join(spaces) or "none", escalation, limits)
    return f"| {' | '.join(cells)} |"


def test_the_table_of_containers_is_what_is_rendered() -> None:
    rendered = [row(pod, one) for pod in pods()
                for one in (*pod.get("initContainers", ()), *pod["containers"])]  # fmt: skip
    text = (project() / "docs/security.md").read_text()
    _, _, rest = text.partition("### Every container, as rendered\n")
    table = [line for line in rest.partition("\n#")[0].splitlines() if line.startswith("| `")]
    assert table == list(dict.fromkeys(rendered))


def test_each_capability_that_is_added_has_its_reason() -> None:
    text = (project() / "docs/security.md").read_text()
    _, _, rest = text.partition("### Every container, as rendered\n")
    section = rest.partition("\n#")[0]
    for pod in pods():
        for one in pod["containers"]:
            for capability in one["securityContext"]["capabilities"].get("add", ()):
                name = "takeover" if one["name"] == "handback" else one["name"]  # the same, backwards
                assert f"{name}, {capability}:" in " ".join(section.split()), "say why"
