# SPDX-License-Identifier: Apache-2.0 OR MIT
# need PACKAGE... : make sure that Debian packages are installed. As root it installs
# what is missing; otherwise it says exactly which packages are, and ends with status 1.

need() {
	missing=""
	for package in "$@"; do
		if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null |
			grep -qx installed; then
			missing="$missing $package"
		fi
	done
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ]; then
		echo "missing packages; install them as root:" >&2
		echo "    apt-get install$missing" >&2
		exit 1
	fi
	echo "# installing:$missing" >&2
	log=$(mktemp)
	# The lists may be old or absent; what is missing then is fetched anew.
	# shellcheck disable=SC2086
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		echo "could not install:$missing" >&2
		exit 1
	fi
	rm -f "$log"
}

BUILD_PACKAGES="gcc libc6-dev meson ninja-build python3 pkg-config"
RISCV64_PACKAGES="gcc-riscv64-linux-gnu qemu-system-misc opensbi"
X86_64_PACKAGES="qemu-system-x86"
AARCH64_PACKAGES="gcc-aarch64-linux-gnu binutils-aarch64-linux-gnu qemu-system-arm"
case "$(uname -m)" in
x86_64) ;;
*) X86_64_PACKAGES="$X86_64_PACKAGES gcc-x86-64-linux-gnu" ;;
esac
