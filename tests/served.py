"""A job that serves a page, as a process, for tests that send it requests."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys


class Served:
    """`msst JOB --port=0 ...`, its address, and what it answers."""

    def __init__(self, *arguments):
        self._command = [sys.executable, "-m", "msst_keras", *map(str, arguments)]
        self.port, self.process = 0, None
        self.start()

    def start(self):
        """Starts the job, on the port that it had before."""
        command = [*self._command, f"--port={self.port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://(\S+):(\d+)/(?:\?token=(\S+))?", line)
        assert found, f"the job says {line!r}"
        self.host, self.port, self.token = found[1], int(found[2]), found[3]

    def kill(self):
        """Ends it by SIGKILL."""
        self.process.kill()
        self.process.wait(60)
        self.process.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, **headers):
        """(status, answer): JSON where it is JSON, else bytes. Headers with "_" for "-"; None leaves one away."""
        sent = {"Host": f"127.0.0.1:{self.port}", "Origin": None if method == "GET" else self.origin}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
            self.headers = response.headers
            is_json = response.headers.get("content-type", "").startswith("application/json")
            return response.status, json.loads(content) if is_json else content
        finally:
            connection.close()
