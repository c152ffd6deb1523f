"""The second copy of the vocabulary."""

import torch

from decone.data.languages import Languages


def test_two_languages_share_the_vocabulary_evenly() -> None:
    languages = Languages(65, 0.02)
    assert languages.simulated
    assert languages.vocabulary == 130
    assert torch.equal(languages.ids("HR"), torch.arange(65))
    assert torch.equal(languages.ids("LR"), torch.arange(65, 130))


def test_without_a_share_there_is_one_language() -> None:
    languages = Languages(65, 0.0)
    assert not languages.simulated
    assert languages.vocabulary == 65
    assert list(languages.offsets()) == ["all"]
    assert torch.equal(languages.ids("all"), torch.arange(65))
