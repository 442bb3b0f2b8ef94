# Ways out of a container, each of which must fail. A line is said for each: `held` or `escaped`.
# What counts is the effect: a call that succeeds inside and reaches nothing of the host is no escape.
# The image has no usr/bin; every host does.

attack() {
    if busybox timeout 20 sh -c "$2" >/dev/null 2>&1; then echo "escaped: $1"; else echo "held: $1"; fi
}

mkdir -p /try
cd /try

# Mounts.
attack 'mount a tmpfs' 'busybox mount -t tmpfs none /try'
attack 'mount a new proc' 'busybox mount -t proc none /try'
attack 'mount a new sysfs' 'busybox mount -t sysfs none /try'
attack 'mount the host root by its device' 'for d in $(busybox sed -n "s/^\(\/dev\/[^ ]*\) .*/\1/p" /proc/mounts); do busybox mount $d /try && exit 0; done; false'
attack 'bind a masked path open' 'busybox mount -o bind /proc /try'
attack 'remount the root' 'busybox mount -o remount,rw /'
attack 'remount proc writable' 'busybox mount -o remount,rw,bind /proc/sys /proc/sys && echo x > /proc/sys/kernel/core_pattern'
attack 'unmount a masked path' 'busybox umount /proc/acpi || busybox umount /proc/keys || busybox umount /sys/firmware'
attack 'unmount the read-only proc' 'busybox umount /proc/sys'
attack 'unshare the mounts' 'busybox unshare -m true'
attack 'a user namespace of its own' 'busybox unshare -U true'
attack 'a user namespace with mounts' 'busybox unshare -U -r -m busybox mount -t tmpfs none /try'
attack 'enter the mounts of process 1' 'busybox nsenter -t 1 -m true'
attack 'pivot the root' 'busybox pivot_root /try /try'

# Devices.
attack 'read a disk by its number' 'for n in "8 0" "254 0" "253 0" "259 0" "7 0" "252 0"; do busybox mknod disk b $n && busybox head -c 1 disk | busybox grep -q . && exit 0; rm -f disk; done; false'
attack 'read the kernel memory' 'busybox mknod mem c 1 1 && busybox head -c 1 mem'
attack 'read kmem and port' 'busybox mknod port c 1 4 && busybox head -c 1 port'
attack 'read the kernel log device' 'busybox mknod kmsg c 1 11 && busybox timeout 2 busybox head -c 1 kmsg | busybox grep -q .'
attack 'type at the host console' 'busybox mknod con c 4 1 && echo x > con'
attack 'open fuse' 'busybox mknod fuse c 10 229 && busybox head -c 0 fuse && : < fuse'
attack 'open the loop control' 'busybox mknod loop c 10 237 && : < loop'
attack 'use a disk of /dev' 'ls /dev | busybox grep -E "^(sd|vd|nvme|loop|mem|kmsg|port)"'

# /proc.
attack 'set the core pattern' 'echo "|/tmp/x" > /proc/sys/kernel/core_pattern'
attack 'set the module helper' 'echo /tmp/x > /proc/sys/kernel/modprobe'
attack 'panic by sysrq' 'echo x-no-such-key > /proc/sysrq-trigger'
attack 'read kcore' 'busybox head -c 1 /proc/kcore | busybox grep -q .'
attack 'read the keys' 'busybox grep -q . /proc/keys'
attack 'see processes of the host' 'busybox grep -q -a -E "minke|systemd|sshd" /proc/[0-9]*/comm'
attack 'walk to the host by process 1' 'cd /proc/1/root && for p in usr/bin ../../usr/bin; do busybox test -e $p && exit 0; done; false'
attack 'walk to the host by the working directory' 'busybox test -e /proc/self/cwd/../../../../../../usr/bin'
attack 'become unkillable' 'echo -1000 > /proc/self/oom_score_adj'
attack 'change the routing of the host' 'echo 1 > /proc/sys/net/ipv4/ip_forward'
attack 'set a binary format' 'busybox mount -t binfmt_misc none /try'
attack 'raise the number of processes' 'echo 99999999 > /proc/sys/kernel/pid_max'
attack 'write the program of process 1' 'for f in /proc/[0-9]*/exe; do t=$(busybox readlink $f); case $t in *minke*|*engine*) : >> $f && exit 0;; esac; done; false'

# sysfs.
attack 'set the hotplug helper' 'echo /tmp/x > /sys/kernel/uevent_helper'
attack 'suspend the machine' 'echo no-such-state > /sys/power/state'
attack 'unbind a driver' 'for f in /sys/bus/*/drivers/*/unbind; do echo none > $f && exit 0; done; false'
attack 'write the firmware' 'busybox touch /sys/firmware/x'
attack 'change a block device' 'for f in /sys/block/*/queue/read_ahead_kb; do busybox cat $f > /try/ra && busybox cat /try/ra > $f && exit 0; done; false'
attack 'remount sysfs' 'busybox mount -o remount,rw /sys'

# cgroups.
attack 'lift the own memory limit' 'for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do busybox cat $f > /try/limit && busybox cat /try/limit > $f && exit 0; done; false'
attack 'allow a device' 'echo "a *:* rwm" > /sys/fs/cgroup/devices/devices.allow'
attack 'make a cgroup' 'for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x && exit 0; done; false'
attack 'leave the cgroup' 'for d in /sys/fs/cgroup/.. /sys/fs/cgroup/*/..; do echo $$ > $d/cgroup.procs && exit 0; done; false'
attack 'set a release agent' 'for d in /sys/fs/cgroup/*; do echo /tmp/x > $d/release_agent && exit 0; done; false'
attack 'be told of the end of a cgroup' 'for d in /sys/fs/cgroup/*; do echo 1 > $d/notify_on_release && exit 0; done; false'
attack 'mount a cgroup hierarchy' 'busybox mount -t cgroup -o rdma none /try || busybox mount -t cgroup2 none /try'

# Symbolic links and roots.
attack 'leave a root in the root' 'mkdir -p in && busybox chroot in true; busybox test -e ../../../../../../../../usr/bin'
attack 'follow a link of links' 'busybox ln -s ../../../../../../../../../usr/bin up && busybox test -e up'

# The kernel.
attack 'load a module' 'busybox touch m.ko && busybox insmod m.ko; busybox insmod m.ko 2>&1 | busybox grep -q -i "invalid module"'
attack 'read the log of the kernel' 'busybox dmesg | busybox grep -q .'
attack 'set the clock' 'busybox date -s @1000000000; busybox test $(busybox date +%s) -lt 1500000000'
attack 'swap on a file' 'busybox dd if=/dev/zero of=swap bs=4096 count=20 && busybox mkswap swap && busybox swapon swap'
attack 'name the machine' 'busybox hostname escaped'
attack 'reboot' 'busybox reboot -f -n 2>&1 | busybox grep -q -v -i -E "permitted|reboot:"'
attack 'a raw view of another network' 'busybox nsenter -t 1 -n true'
attack 'change the table of interrupts' 'for f in /proc/irq/*/smp_affinity; do busybox cat $f > /try/irq && busybox cat /try/irq > $f && exit 0; done; false'
attack 'a priority above all' 'busybox nice -n -20 true 2>&1 | busybox grep -q . && false || busybox nice -n -20 busybox sh -c "test \$(busybox nice) -lt 0"'
attack 'connect to the engine' 'for s in /var/run/docker.sock /run/docker.sock /run/minke/engine.sock; do busybox test -e $s && exit 0; done; false'
