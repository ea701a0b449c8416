"""Names of the findings of an audit, as in `audit.json`."""

__all__ = ["FINDINGS", "named_findings"]

# Names in `audit.json`, and descriptions for the terminal.
FINDINGS = {
    "unreadable": "files that cannot be read",
    "odd": "odd files",
    "exact_duplicate_groups": "groups of exact duplicates",
    "near_duplicate_groups": "groups of near duplicates",
    "label_conflicts": "groups of copies with more than one label",
    "split_leaks": "groups of copies in more than one part",
    "group_leaks": "lesions or patients in more than one part",
    "metadata_disagreements": "labels that the metadata contradicts",
    "excluded": "images that are also in an excluded set",
}


def named_findings(text: str | None) -> list[str]:
    """Return the findings in `audit.fail_on`, separated by commas, with or without brackets. `any` selects all."""
    names = [name.strip(" '\"") for name in (text or "").strip("[] ").split(",")]
    return list(FINDINGS) if "any" in names else [name for name in names if name]
