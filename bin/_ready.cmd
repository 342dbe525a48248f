@echo off
rem _ready.cmd all|dev: exit status 0 when .venv holds this checkout with that extra. See _ready.sh and _setup.py.
if exist "%~dp0..\.venv\Scripts\python.exe" (
    "%~dp0..\.venv\Scripts\python.exe" -I -S "%~dp0_setup.py" %1
    exit /b
)
where /q py
if not errorlevel 1 (
    py -3 -I "%~dp0_setup.py" %1
    exit /b
)
where /q python
if not errorlevel 1 (
    python -I "%~dp0_setup.py" %1
    exit /b
)
echo outbox: Python 3.11 or newer is needed, and neither py nor python is in PATH. 1>&2
exit /b 1
