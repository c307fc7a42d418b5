#!/usr/bin/env bash
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# scripts/browser.sh: have a browser for the tests of the web page, Chromium with its driver. Where they are missing,
# Debian's packages are installed if that can be done; else it says what to install, and fails.
set -euo pipefail

has_browser() {
    { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null &&
        command -v chromedriver >/dev/null
}

has_browser && exit 0

if [[ $(id -u) == 0 && -e /etc/debian_version ]] && command -v apt-get >/dev/null; then
    echo "installing chromium and chromium-driver" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver; } >&2 || true
    has_browser && exit 0
fi

cat >&2 <<'TEXT'
error: no browser for the tests of the web page.
  Remedy: install chromium (or Google Chrome) and chromedriver of the same version, so that both are on PATH;
  on Debian: apt-get install chromium chromium-driver
TEXT
exit 1
