from ownhand.text import clean_transcription, collapse_whitespace, grapheme_clusters, is_blank, to_nfc, words


def test_letters_and_their_combining_marks_become_one_code_point() -> None:
    assert to_nfc("и\u0306 е\u0308") == "й ё"
    assert to_nfc("й ё") == "й ё"


def test_a_transcription_loses_outer_white_space_and_nothing_else() -> None:
    assert clean_transcription("\t «Ну  и\u0306 вот» —  №\u00a05 \u00a0\n") == "«Ну  й вот» —  №\u00a05"


def test_line_ends_are_the_same_whatever_system_wrote_them() -> None:
    assert clean_transcription("один\r\nдва\rтри\n") == "один\nдва\nтри"


def test_whitespace_of_every_kind_collapses_to_single_spaces() -> None:
    assert collapse_whitespace(" а\t\tб\n в\u00a0\u2003г ") == "а б в г"


def test_grapheme_clusters_are_what_a_reader_counts() -> None:
    assert grapheme_clusters("ё" + "е\u0308") == ["ё", "е\u0308"]
    assert grapheme_clusters("a\u0301b") == ["a\u0301", "b"]
    assert grapheme_clusters("👨\u200d👩\u200d👧!") == ["👨\u200d👩\u200d👧", "!"]
    assert grapheme_clusters("") == []


def test_a_text_without_ink_is_blank() -> None:
    assert all(map(is_blank, ("", "  \n", "\u00a0\u3000", "\u200b\ufeff")))
    assert not any(map(is_blank, (".", " 0 ", "\u200bа")))


def test_words_ignore_case_and_punctuation_but_keep_accents_and_digits() -> None:
    assert words("«Мама»,  МЫЛА\nраму: кафе\u0301 №5!") == ["мама", "мыла", "раму", "кафе\u0301", "5"]
    assert words("й") == words("и\u0306")
    assert words("— …") == []
