from xinc_captum.progress import progress


def test_all_arguments_are_passed_on(capsys):
    assert list(progress([1, 2], "x", show=True)) == [1, 2]
    assert list(progress(range(3), "x", show=False, total=3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""
