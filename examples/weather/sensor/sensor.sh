#!/bin/sh
# A thermometer: one line "seconds degrees" per second, the last ten minutes kept.
# It wanders around 20 degrees; a real one would read a device file.
FILE=/readings/temperature
mkdir -p /readings
trap 'exit 0' TERM INT

tenths=$(tail -n 1 "$FILE" 2>/dev/null | awk '{ printf "%d", $2 * 10 }')
tenths=${tenths:-200}
echo "the sensor begins at $((tenths / 10)) degrees"
while true; do
    noise=$(od -An -N1 -tu1 /dev/urandom)
    tenths=$((tenths + noise % 5 - 2 + (200 - tenths) / 20))
    echo "$(date +%s) $((tenths / 10)).$((tenths % 10))" >>"$FILE"
    if [ "$(wc -l <"$FILE")" -gt 700 ]; then
        # A new file in one step, so that readers never see half of one.
        tail -n 600 "$FILE" >"$FILE.new" && mv "$FILE.new" "$FILE"
        echo "kept the last 600 readings"
    fi
    sleep 1 &
    wait $!
done
