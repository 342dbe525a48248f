@echo off
rem The command of this checkout: installs it into .venv the first time, then runs it, where you are. outbox --help
setlocal
call "%~dp0_ready.cmd" all || exit /b 1
"%~dp0..\.venv\Scripts\outbox.exe" %*
exit /b
