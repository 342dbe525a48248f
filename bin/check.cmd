@echo off
rem Everything a change must pass: format, lint, types, tests. Stops at the first that fails.
setlocal
call "%~dp0_ready.cmd" dev || exit /b 1
cd /d "%~dp0.."
set "python=.venv\Scripts\python.exe"
if "%~1"=="--torture" (
    echo check: torture needs fork and kill -9, which Windows does not have 1>&2
    exit /b 2
)
if "%~1"=="--coverage" %python% -m tests.mutants %* & exit /b
if "%~1"=="--mutate" (echo check: mutants needs fork, which Windows does not have 1>&2 & exit /b 2)
echo check: format
%python% -m ruff format --check . || goto failed
echo check: lint
%python% -m ruff check . || goto failed
echo check: types
%python% -m mypy || goto failed
echo check: tests
%python% -m pytest -n 3 --dist loadfile || goto failed
echo check: all passed
exit /b 0

:failed
echo check: FAILED at the step above; the steps after it did not run 1>&2
exit /b 1
