"""The card says what is known, marks what is not, and shows names as they are."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from melanoma.card.card import NOT_KNOWN, abridged, checklist_items, model_card, model_card_page
from melanoma.card.facts import CardFacts, Column

FACTS = CardFacts(
    run_id="abc", run_name="a | b", date="2026-01-02", task="t", protocol="clean", model="m1", parameters="1,000",
    image_size=180, resize="stretch", classes=["a|b", "<script>x</script>"], commit="not known", versions="Python",
    intended_use=None, data_name="folder", data_path=None, synthetic=False, fingerprint="f",
    images={"a|b": {"train": 3, "validation": 2, "test": 1}}, totals={"train": 3, "validation": 2, "test": 1},
    augmented=0, removed=0, quarantined=0, audit_images=6, audit_found=["1 odd files"],
    split={"method": "auto", "group": "auto"}, split_hash="h", leaks="None.", test_unused=True, seed=0,
    monitor="val/loss", primary_metric="auc", positive={"sick": ["a|b"]}, epochs=2, optimizer="Adam", balance="none",
    pretrained=None, fit_time="Time: not known.",
    confidence="95%", resamples=10, calibration="none", averaged_over=None, grouped=False,
    columns=[Column("validation", 2), Column("test", 1)], results=[("accuracy", ["0.500", "-"])], remarks="",
    findings=["Overfitting."], points=[],
    sets={"wanted": "90%", "coverage": "90%", "size": "1.5"},
    ood={"share": "1.2%", "wanted": "1.0%"},
    abstention={"wanted": "10%", "share": "1%", "accuracy": "2%", "threshold": "0.5"}, subgroups=[],
    subgroup_metric="", worst=None, metadata_columns=[], tone_estimated=False, external=False, seen=False,
    seen_unknown=False, external_name=None, external_path=None, recalibrated=0, limits=["One seed."],
)  # fmt: skip


def rows(card: str, title: str) -> dict[str, str]:
    """Answers of a checklist by item number."""
    section = card.split(f"## {title}")[1].split("\n## ")[0]
    cells = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {cell[0].strip(): cell[-1].strip() for cell in cells if cell[0].strip().isdigit()}


@pytest.mark.parametrize("most", [0, 300, 900, 1500, 3000, 10_000])
def test_an_abridged_card_has_whole_sections_and_names_the_others(most: int):
    card = model_card(FACTS, {})
    short = abridged(card, most)
    sections = ["## " + section for section in card.split("\n## ")[1:]]
    assert len(short) <= most
    for section in sections:
        title = section.splitlines()[0]
        whole, named = section.strip() in short, title.removeprefix("## ") in short.split("More in `model_card.md`")[-1]
        assert whole != named or short == "" or most == 10_000
        assert whole == (f"{title}\n" in short)
    assert (short.strip() == card.strip()) == (most == 10_000)
    assert (short == "") == (most <= 300)


def test_the_checklists_have_all_their_items():
    assert {item.rsplit("_", 1)[0] for item in checklist_items()} == {"clear_derm", "tripod_ai"}
    assert {f"clear_derm_{n}" for n in range(1, 26)} | {f"tripod_ai_{n}" for n in range(1, 28)} == checklist_items()


def test_what_is_not_known_is_marked_and_not_invented():
    card = model_card(FACTS, {})
    clear, tripod = rows(card, "CLEAR Derm"), rows(card, "TRIPOD+AI")
    assert (len(clear), len(tripod)) == (25, 27)
    for item in ("1", "2", "3", "5", "6", "7", "8", "13", "16", "17", "18", "25"):
        assert clear[item] == NOT_KNOWN
    assert clear["11"] == "3, 2 and 1."
    assert tripod["17"] == NOT_KNOWN
    known = sum(answer != NOT_KNOWN for answer in clear.values())
    assert f"{known} of 25 items" in card


@pytest.mark.parametrize("ood", [FACTS.ood, None])
def test_the_share_of_flagged_images_is_told_where_it_is_known(ood: dict | None):
    card = model_card(replace(FACTS, ood=ood), {})
    assert ("flags 1.2% of these images as unlike the training images, where 1.0% are expected" in card) == bool(ood)
    assert rows(card, "CLEAR Derm")["15"].startswith("Flagged by a score" if ood else "Not tested. The model abstains")


def test_answers_of_the_user_fill_items():
    card = model_card(FACTS, {"clear_derm_1": "Dermoscopic | polarised"})
    assert rows(card, "CLEAR Derm")["1"] == "Dermoscopic \\| polarised"


def test_the_intended_use_is_the_users():
    assert "Triage of moles in mice." in model_card(replace(FACTS, intended_use="Triage of moles in mice."), {})


@pytest.mark.parametrize("external", [False, True])
def test_an_external_result_is_a_column_of_its_own(external):
    columns = [*FACTS.columns, Column("other images", 7)] if external else FACTS.columns
    results = [("accuracy", ["0.500", "-", "0.250"][: len(columns)])]
    facts = replace(FACTS, external=external, columns=columns, results=results, external_name="csv", external_path="/x")
    card = model_card(facts, {})
    assert ("other images (7 images) |" in card) is external
    assert (rows(card, "CLEAR Derm")["12"] == "csv, 7 images; see Results.") is external
    assert ("without images that the model was trained or tuned on" in card) is external
    assert "not fully known" not in card
    unsure = model_card(replace(facts, seen_unknown=True), {})
    assert ("; it is not fully known whether the model was trained on some of them or on copies" in unsure) is external
    seen = model_card(replace(facts, seen=True, seen_unknown=True), {})
    assert ("trained or tuned on: **this result is optimistic**" in seen) is external


def test_copies_that_were_averaged_are_named():
    averaged = model_card(replace(FACTS, averaged_over="8 mirrored and turned copies"), {})
    assert "averaged over 8 mirrored and turned copies of each image" in averaged


def test_the_page_obeys_no_html_in_names():
    page = model_card_page(model_card(FACTS, {}), "card <of> all")
    tags = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)

    Reader().feed(page)
    assert "script" not in tags
    assert tags.count("table") >= 5
    assert "&lt;script&gt;" in page
    assert "card &lt;of&gt; all" in page


def test_the_results_stay_longest_when_a_card_is_shortened():
    card = "# Card\n\n## Data\n" + "d" * 300 + "\n\n## Results\n" + "r" * 300 + "\n\n## Limits\nfew\n"
    short = abridged(card, 500)
    assert ("## Data" in short, "## Results" in short, "## Limits" in short) == (False, True, True)
    assert short.rstrip().endswith(": Data.")
