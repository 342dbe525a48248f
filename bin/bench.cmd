@echo off
rem What Outbox costs on this machine, with what the benchmark needs installed into .venv. bin\bench --help
setlocal
call "%~dp0_ready.cmd" dev || exit /b 1
set "PYTHONPATH=%~dp0.."
"%~dp0..\.venv\Scripts\python.exe" -m tests.bench %*
exit /b
