"""Each promise of the service names tests that exist, and the page says what they last measured."""

from tests.tools import promises


def test_every_named_test_exists_and_the_page_is_current():
    assert len(promises.PROMISES) == 24
    assert not promises.missing()
    assert promises.PAGE.read_text("utf-8") == promises.rendered()


def test_a_test_that_is_not_there_is_noticed():
    assert promises.exists("tests/tools/test_promises.py::test_a_test_that_is_not_there_is_noticed")
    assert promises.exists("tests/tools/test_promises.py::")
    assert not promises.exists("tests/tools/test_promises.py::test_none")
    assert not promises.exists("tests/tools/nothing.py::")
