#!/bin/busybox sh
# Finds the disk and goes on from there.
busybox=/bin/busybox
$busybox mkdir -p /proc /sys /dev /disk
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
$busybox modprobe virtio_pci
$busybox modprobe virtio_blk
until [ -b /dev/vda ]; do $busybox usleep 1000; done
$busybox mount -t ext4 /dev/vda /disk
$busybox mount -o move /dev /disk/dev
$busybox umount /sys /proc
exec $busybox switch_root /disk /init
