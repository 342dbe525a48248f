@echo off
rem Runs the tests of this checkout, with what they need installed into .venv. Arguments go to pytest (from its root).
setlocal
call "%~dp0_ready.cmd" dev || exit /b 1
cd /d "%~dp0.."
.venv\Scripts\python.exe -m pytest %*
exit /b
