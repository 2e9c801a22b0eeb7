"""Network policy: every API converted into one form, evaluated, compiled to sets, explained. Pure."""
