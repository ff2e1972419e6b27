# Starts systemd on a copy of this system whose changes stay in memory, with a package installed: boot.sh DIRECTORY PACKAGE.
# It runs as the first process of namespaces of its own, and ends with them.
set -e
dir=$1 deb=$2
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
cp "$deb" "$dir/root/root/bridged.deb"
cd "$dir/root"

for d in run tmp dev; do mount -t tmpfs tmpfs $d; done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
for n in null zero full random urandom tty; do cp -a /dev/$n dev/; done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
mount -t proc proc proc
mount -t sysfs sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else # both versions side by side
    mount -t tmpfs tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
fi
ip link set lo up

# No service of this system but what is tested.
rm -rf etc/systemd/system/*.wants usr/sbin/policy-rc.d
chroot . dpkg --force-unsafe-io --no-triggers --install /root/bridged.deb

mkdir old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target
