"""What a JSON schema found wrong with the form of a file, in words that its writer understands."""

from jsonschema import ValidationError


def in_words(fault: ValidationError, field: str) -> str:
    """The fault in a few words.

    Args:
        field: name of the field that it is in; "" where it is in no field, but in what holds them.
    """
    got, wanted = fault.instance, fault.validator_value
    if fault.validator == "additionalProperties":
        known = fault.schema["properties"]
        return f"unknown field {next(name for name in got if name not in known)!r}"
    if fault.validator == "required":
        return f"field {next(name for name in wanted if name not in got)!r} is missing"
    if fault.validator == "minLength" or got is None:
        return f"field {field!r} is missing"
    if fault.validator == "enum":
        return f"unknown {field} {got!r}; one of {', '.join(wanted)}"
    if fault.validator == "pattern":
        return f"{field} must be {fault.schema['description']}"
    if not field:
        return f"expected fields, got {got!r}"
    return f"field {field!r} must be {wanted}, got {got!r}"
