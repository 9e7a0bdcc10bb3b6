#!/bin/sh
# System packages that the demo and the tests want. As root they are installed; otherwise one line says what is missing.
python=${1:-python3}
wanted=""
"$python" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"
command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ] || wanted="$wanted mosquitto"
command -v mosquitto_sub >/dev/null 2>&1 || wanted="$wanted mosquitto-clients"
command -v socat >/dev/null 2>&1 || wanted="$wanted socat"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 /usr/local/lib/faketime/libfaketimeMT.so.1 2>/dev/null | grep -q . || wanted="$wanted libfaketime"
command -v mbpoll >/dev/null 2>&1 || wanted="$wanted mbpoll"
ls /usr/lib/*/libmodbus.so.5 /usr/lib/libmodbus.so.5 /usr/local/lib/libmodbus.so.5 2>/dev/null | grep -q . || wanted="$wanted libmodbus5"
[ -z "$wanted" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing:$wanted"
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get -qq update && apt-get -qq install -y --no-install-recommends $wanted; } >/dev/null 2>&1 && exit 0
fi
echo "missing:$wanted (apt install$wanted); what needs them is skipped, and says so" >&2
