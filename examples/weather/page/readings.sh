#!/bin/sh
# The page asks its own server; that asks the service called api.
if body=$(timeout 5 wget -q -O - http://api:8000/readings); then
    printf 'Content-Type: application/json\r\nCache-Control: no-store\r\n\r\n%s\n' "$body"
else
    printf 'Status: 502 Bad Gateway\r\nContent-Type: text/plain\r\n\r\nthe api does not answer\n'
fi
