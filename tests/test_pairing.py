from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import make_texts, unigram_tokenizer, wordpiece_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from regraft.activations.options import SampleOptions
from regraft.activations.pairing import Encoding, Offsets, Pairs, Position, encode, pool
from regraft.errors import SamplingError
from regraft.schema import make


class Fast:
    is_fast = True

    def get_vocab(self) -> dict[str, int]:
        return {}


OFFSETS = Offsets(Fast(), Fast())


def encoded(*spans: list[tuple[int, int]]) -> Encoding:
    """Encode texts given as the spans of their tokens, a special token before and padding behind."""
    longest = max(map(len, spans)) + 1
    padded = np.array([[(0, 0), *row, *[(0, 0)] * (longest - 1 - len(row))] for row in spans])
    special = np.array([[1] + [0] * len(row) + [1] * (longest - 1 - len(row)) for row in spans])
    return Encoding(np.zeros_like(special), 1 - special, special, padded)


def groups(pairs: Pairs) -> list[tuple[list[int], list[int]]]:
    return [
        (pairs.teacher_rows[pairs.teacher_pair == i].tolist(), pairs.student_rows[pairs.student_pair == i].tolist())
        for i in range(pairs.count)
    ]


def test_offsets_by_hand() -> None:
    text = "unbelievable cat"
    teacher = encoded([(0, 2), (2, 12), (12, 16)])  # un believable " cat"
    student = encoded([(0, 2), (2, 7), (7, 12), (13, 14), (14, 16)])  # un belie vable c at
    pairs = OFFSETS([text], teacher, student)
    assert groups(pairs) == [([1], [1]), ([2], [2, 3]), ([3], [4, 5])]
    assert pairs.student_tokens == 5


def test_every_pair_is_of_a_text() -> None:
    teacher = encoded([(0, 2)], [(0, 2), (3, 5), (6, 8)])
    student = encoded([(0, 1), (1, 2)], [(0, 2), (3, 5), (6, 7), (7, 8)])
    pairs = OFFSETS(["an", "it is so"], teacher, student)
    assert pairs.text_of_pair(student.ids.shape[1]).tolist() == [0, 1, 1, 1]


def test_pairs_that_begin_a_word() -> None:
    """The first piece of a word does, a space inside its span or not, and punctuation, and what is behind that."""
    text = "unreal cats: so"
    spans = [(0, 2), (2, 6), (6, 11), (11, 12), (12, 13), (13, 14), (14, 15)]  # un real " cats" : " " s o
    pairs = OFFSETS([text], encoded(spans), encoded(spans))
    assert pairs.begin_words([text], encoded(spans)).tolist() == [True, False, True, True, True, False]
    glued = "a:b"
    spans = [(0, 1), (1, 2), (2, 3)]
    assert OFFSETS([glued], encoded(spans), encoded(spans)).begin_words([glued], encoded(spans)).all()


def test_by_position_special_tokens_begin_no_word() -> None:
    tokenizer = wordpiece_tokenizer()
    text = "the unbelievable photographers"
    encoding = encode(tokenizer, [text], 32)
    pairs = Position(tokenizer, tokenizer)([text], encoding, encoding)
    assert pairs.count == encoding.ids.size > 5  # with those at both ends
    assert pairs.begin_words([text], encoding).sum() == 3


def test_offsets_that_cross_are_joined() -> None:
    pairs = OFFSETS(["abcd"], encoded([(0, 1), (1, 3), (3, 4)]), encoded([(0, 2), (2, 4)]))
    assert groups(pairs) == [([1, 2, 3], [1, 2])]


def test_text_that_one_side_cut_off_is_not_paired() -> None:
    pairs = OFFSETS(["ab cd", "xy"], encoded([(0, 2)], [(0, 2)]), encoded([(0, 2), (3, 5)], [(0, 1)]))
    assert groups(pairs) == [([1], [1])]
    assert pairs.paired_student_tokens == 1
    assert pairs.student_tokens == 3


def brute_force(text: str, teacher: list[tuple[int, int]], student: list[tuple[int, int]]) -> list[tuple]:
    """Pair the obvious way: walk the text, close a span where both sides have a token boundary."""

    def visible(span: tuple[int, int]) -> set[int]:
        return {i for i in range(*span) if not text[i].isspace()}

    cells = [[frozenset(visible(span)) for span in side] for side in (teacher, student)]
    spans: list[set[int]] = [{i} for i in range(len(text)) if not text[i].isspace()]
    for cell in {cell for side in cells for cell in side if cell}:
        joined = {i for span in spans if span & cell for i in span}
        joined |= set(range(min(cell), max(cell) + 1)) & {i for span in spans for i in span}
        spans = [span for span in spans if not span & joined] + [joined]
    result = []
    for span in sorted(spans, key=min):
        inside = [[n for n, cell in enumerate(side) if cell and cell <= span] for side in cells]
        covered = [set().union(*(side[n] for n in chosen)) for side, chosen in zip(cells, inside, strict=True)]
        if all(inside) and covered[0] == covered[1] == span:
            result.append((inside[0], inside[1]))
    return result


segmentation = st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=12)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="ab \tżß", min_size=1, max_size=16), segmentation, segmentation)
def test_offsets_equal_brute_force(text: str, one: list, other: list) -> None:
    def cut(pieces: list[tuple[int, bool]]) -> list[tuple[int, int]]:
        spans, start = [], 0
        for length, dropped in pieces:
            end = min(start + length, len(text))
            if end > start and not dropped:
                spans.append((start, end))
            start = end
        return spans

    teacher, student = cut(one), cut(other)
    pairs = OFFSETS([text], encoded(teacher), encoded(student))
    assert [([n - 1 for n in t], [n - 1 for n in s]) for t, s in groups(pairs)] == brute_force(text, teacher, student)


def test_a_tokenizer_paired_with_itself_pairs_every_token() -> None:
    tokenizer, texts = wordpiece_tokenizer(), make_texts(40)
    encoding = encode(tokenizer, texts, 64)
    pairs = Offsets(tokenizer, tokenizer)(texts, encoding, encoding)
    assert (pairs.student_rows == pairs.teacher_rows).all()
    assert pairs.count == pairs.paired_student_tokens == pairs.student_tokens == int((encoding.special == 0).sum())


def test_different_tokenizers_pair_the_same_characters() -> None:
    teacher, student, texts = unigram_tokenizer(), wordpiece_tokenizer(), make_texts(40)
    encodings = encode(teacher, texts, 64), encode(student, texts, 64)
    pairs = Offsets(teacher, student)(texts, *encodings)
    assert pairs.paired_student_tokens > 0.9 * pairs.student_tokens

    def characters(encoding: Encoding, rows: np.ndarray, pair: np.ndarray) -> dict[int, str]:
        length = encoding.ids.shape[1]
        joined: dict[int, str] = {}
        for row, number in zip(rows, pair, strict=True):
            text, token = divmod(int(row), length)
            piece = texts[text][slice(*encoding.spans[text, token])]
            joined[number] = joined.get(number, "") + piece.strip()
        return joined

    assert characters(encodings[0], pairs.teacher_rows, pairs.teacher_pair) == characters(
        encodings[1], pairs.student_rows, pairs.student_pair
    )


def test_position_pairs_equal_pieces_at_equal_indices_without_padding() -> None:
    teacher, student = wordpiece_tokenizer(90), wordpiece_tokenizer(60)
    texts = make_texts(30)
    encodings = encode(teacher, texts, 256), encode(student, texts, 256)
    pairs = Position(teacher, student)(texts, *encodings)
    expected = []
    for row, text in enumerate(texts):
        pieces = [tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) for tokenizer in (teacher, student)]
        expected += [(row, i) for i, (a, b) in enumerate(zip(*pieces, strict=False)) if a == b]
    found = [tuple(map(int, divmod(row, encodings[1].ids.shape[1]))) for row in pairs.student_rows]
    assert found == expected
    assert 0 < pairs.count < pairs.student_tokens


def test_pool_averages_or_takes_the_last() -> None:
    x = torch.tensor([[1.0], [2], [4], [8], [16]])
    rows, pair = np.array([0, 2, 3, 4]), np.array([0, 1, 1, 2])
    assert pool(x, rows, pair, 3, last=False).tolist() == [[1], [6], [16]]
    assert pool(x, rows, pair, 3, last=True).tolist() == [[1], [8], [16]]


def test_mistakes_are_refused_in_words() -> None:
    fast, slow = wordpiece_tokenizer(), ByT5Tokenizer()
    with pytest.raises(SamplingError, match=r"student's tokenizer \(ByT5Tokenizer\) reports no character offsets"):
        Offsets(fast, slow)
    with pytest.raises(SamplingError, match=r"unknown pairing 'offset'.*did you mean 'offsets'"):
        make(SampleOptions, {"pairing": "offset"}, SamplingError)
