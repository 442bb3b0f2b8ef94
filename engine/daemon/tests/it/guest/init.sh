#!/bin/busybox sh
# The first program of the machine: mounts what every Linux has, with cgroups of version 2 alone, runs
# the tests that are listed in /tests, and switches the machine off.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox mkdir -p /sbin
/bin/busybox --install -s /bin
# Its own makes no pairs of links; the other is /usr/sbin/ip.
rm /bin/ip
# The kernel calls it by this name for what it lacks.
ln -s /bin/busybox /sbin/modprobe
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
ln -sf /proc/self/fd /dev/fd
hostname guest
ip link set lo up
# A scheduler of the disk that knows weights.
modprobe loop
modprobe bfq && echo bfq > /sys/block/vda/queue/scheduler
export MINKE_DOCKER20=/usr/lib/docker20/docker MINKE_SHIM=/minke/debug/minke-shim RUST_BACKTRACE=1 TERM=dumb

now() { cut -d' ' -f1 /proc/uptime; }

while read -r name; do
    echo "@@ begin $name"
    before=$(now)
    /minke/debug/deps/it --exact "$name" --nocapture < /dev/null > /run/said 2>&1
    code=$?
    # A name that no test has runs none, and that is no success.
    grep -q '^test result: ok. 1 passed' /run/said || code=99
    cat /run/said
    echo
    echo "@@ end $code $(awk "BEGIN { print $(now) - $before }")"
done < /tests
echo
echo "@@ done"
sync
poweroff -f
