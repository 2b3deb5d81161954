# Cross build for aarch64 with Debian's gcc-aarch64-linux-gnu, zlib1g-dev:arm64, libcjson-dev:arm64 and
# libcunit1-dev:arm64; programs run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
