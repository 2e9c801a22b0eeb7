"""One served version of a CustomResourceDefinition, ready for use."""

from dataclasses import dataclass

from towpath.lab.apiserver.errors import Cause, Obj
from towpath.lab.apiserver.printers.custom import custom_printer
from towpath.lab.apiserver.printers.table import Printer
from towpath.lab.apiserver.schema import structural, values


@dataclass(frozen=True, slots=True)
class CustomSchema:
    """``schema`` the OpenAPI v3 schema, None where anything goes; ``scale`` the paths of its subresource."""

    schema: Obj | None
    printer: Printer
    scale: Obj
    keep_unknown: bool

    @classmethod
    def of(cls, version: Obj, keep_unknown: bool) -> "CustomSchema":
        """From an entry of ``spec.versions``. Raises ValueError for a JSONPath it cannot read."""
        return cls(
            (version.get("schema") or {}).get("openAPIV3Schema"),
            custom_printer(version.get("additionalPrinterColumns")),
            (version.get("subresources") or {}).get("scale") or {},
            keep_unknown,
        )

    def prune(self, obj: Obj) -> list[str]:
        """Drop unknown fields; their paths."""
        if self.schema is None or self.keep_unknown:
            return []
        return structural.prune(obj, self.schema, root=True)

    def default(self, obj: Obj) -> None:
        """Fill in defaults."""
        if self.schema is not None:
            structural.default(obj, self.schema)

    def validate(self, obj: Obj, old: Obj | None) -> list[Cause]:
        """What is wrong with an object; parts that an update leaves alone are not judged."""
        return values.validate(obj, self.schema, "", old) if self.schema is not None else []
