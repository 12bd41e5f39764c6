#!/bin/sh
# Makes an unpacked Engine's root file system the root of this process's mount namespace, then keeps that namespace.
# Arguments: the root file system, the lab's folder, the folder of the images, a file to make when all is in place, and how many
# kinds of cgroup hierarchies the Engine bears: "one" or "all".
set -eu
root=$1 lab=$2 images=$3 ready=$4 hierarchies=$5

# The root is shared by all labs: what an Engine writes into it goes to memory, and goes with this namespace.
mkdir -p "$lab/root"
mount -t tmpfs -o mode=0755 lab "$lab/root"
cd "$lab/root"
mkdir upper work merged
mount -t overlay -o "lowerdir=$root,upperdir=upper,workdir=work" lab merged
cd merged

mkdir -p proc dev sys run tmp .old
mount --rbind /proc proc
mount --rbind /dev dev
# Not the machine's: /sys/class/net is that of the namespace in which it is mounted.
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /sys/fs/bpf sys/fs/bpf
if [ "$hierarchies" = one ] && [ -d sys/fs/cgroup/unified ]; then
    umount -l sys/fs/cgroup/unified
fi
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp
cp /etc/resolv.conf etc/resolv.conf
# Unpacking a layer looks this name up, and waits for a name server that the lab does not have.
printf '127.0.0.1 localhost\n::1 localhost\n' > etc/hosts
if [ -d /lib/modules ]; then
    mkdir -p usr/lib/modules
    mount --bind /lib/modules usr/lib/modules
fi
# At the same paths as outside, so that what the Engine tells of files is true there too.
for folder in "$lab" "$images"; do
    mkdir -p "./$folder"
    mount --bind "$folder" "./$folder"
done

# chroot would not do: a runtime that joins this namespace lands in its root.
pivot_root . .old
cd /
umount -l /.old
: > "$ready"
exec sleep infinity
