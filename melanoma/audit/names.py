"""The names of what an audit can find, as in `audit.json`."""

__all__ = ["FINDINGS", "named_findings"]

# What each is called on the terminal.
FINDINGS = {
    "unreadable": "files that cannot be read",
    "odd": "odd files",
    "exact_duplicate_groups": "groups of equal pictures",
    "near_duplicate_groups": "groups of nearly equal pictures",
    "label_conflicts": "groups of copies under more than one label",
    "split_leaks": "groups of copies in more than one part",
    "group_leaks": "lesions or patients in more than one part",
    "metadata_disagreements": "labels that the metadata contradicts",
    "excluded": "images that are in an excluded set too",
}


def named_findings(text: str | None) -> list[str]:
    """The findings that `audit.fail_on` names: separated by commas, in brackets or not; `any` is all of them."""
    names = [name.strip(" '\"") for name in (text or "").strip("[] ").split(",")]
    return list(FINDINGS) if "any" in names else [name for name in names if name]
