from __future__ import annotations

from pathlib import Path

from tools.check_size import FILE_LINES, FUNCTION_LINES, functions, main, problems


def function(name: str, lines: int) -> str:
    return f"def {name}():\n" + "    pass\n" * (lines - 1)


def test_length_counts_from_def_to_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    found = list(functions(path, "@decorator\n" + function("f", 7) + "\nasync def g(): ...\n"))
    assert [(f.name, f.line, f.length) for f in found] == [("f", 2, 7), ("g", 10, 1)]


def test_a_tree_within_the_limits_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(function("f", FUNCTION_LINES))
    (tmp_path / "b.py").write_text("#\n" * FILE_LINES)
    assert list(problems(tmp_path)) == []


def test_a_long_function_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(function("f", FUNCTION_LINES + 1))
    [problem] = problems(tmp_path)
    assert "a.py:1: f() has 61 lines" in problem


def test_one_in_a_hundred_may_be_longer(tmp_path: Path) -> None:
    short = "".join(function(f"f{n}", 2) for n in range(99))
    (tmp_path / "a.py").write_text(short)
    (tmp_path / "b.py").write_text(function("long", FUNCTION_LINES + 1))
    assert list(problems(tmp_path)) == []
    (tmp_path / "c.py").write_text(function("longer", FUNCTION_LINES + 1))
    assert len(list(problems(tmp_path))) == 2


def test_a_long_file_is_a_problem_in_any_language(tmp_path: Path) -> None:
    (tmp_path / "claim.lua").write_text("--\n" * (FILE_LINES + 1))
    (tmp_path / "notes.txt").write_text("\n" * (FILE_LINES + 1))
    [problem] = problems(tmp_path)
    assert "claim.lua: 501 lines" in problem
    assert main([str(tmp_path)]) == 1
