# escape=`
FROM mcr.microsoft.com/windows/nanoserver:ltsc2022
SHELL ["pwsh", "-Command", "$ErrorActionPreference = 'Stop';"]
COPY build\app.exe C:\app\
RUN Write-Host 'a b'; `
    Remove-Item -Force c:\temp
ENTRYPOINT C:\app\app.exe
