"""Lines of real kinds of logs: when, how severe, and what the application said."""

from __future__ import annotations

import calendar

import pytest

from lipservice.simulation.formats import RECORD, LineParser

NOW = calendar.timegm((2024, 6, 1, 0, 0, 0))


def at(*parts: int) -> float:
    return float(calendar.timegm((*parts, *([0] * (6 - len(parts))))))


JAN = at(2024, 1, 2, 15, 4, 5)

LINES = [
    # Python
    ("WARNING:root:disk is full", None, "WARNING", "disk is full"),
    ("ERROR:shop.cart:could not add 3 items", None, "ERROR", "could not add 3 items"),
    ("2024-01-02 15:04:05,123 - shop.cart - INFO - added 3 items", JAN, "INFO", "added 3 items"),
    ("2024-01-02 15:04:05,123 - INFO - added 3 items", JAN, "INFO", "added 3 items"),
    ("2024-01-02 15:04:05,123 - shop - 77 - DEBUG - cart.py:12 - x", JAN, "DEBUG", "x"),
    ("2024-01-02 15:04:05,123 INFO shop.cart added 3 items", JAN, "INFO", "added 3 items"),
    ("2024-01-02 15:04:05,123 INFO added 3 items", JAN, "INFO", "added 3 items"),
    ("2024-01-02 15:04:05,123 [INFO] shop.cart: added", JAN, "INFO", "added"),
    ("2024-01-02 15:04:05,123 [4242] [INFO] added", JAN, "INFO", "added"),
    ("2024-01-02 15:04:05 web-1 shop.cart[4242] INFO added", JAN, "INFO", "added"),
    ("2024-01-02T15:04:05.123+02:00 INFO added", JAN - 7200, "INFO", "added"),
    ("2024-01-02 15:04:05.123 | WARNING  | shop.cart:add:12 - low stock", JAN, "WARNING", "low stock"),
    ("2024-01-02 15:04:05 [info     ] user logged in                 user=17 ip=10.0.0.1", JAN, "INFO", "user logged in"),
    ("2024-01-02T15:04:05.123Z [warning  ] slow query took=12", JAN, "WARNING", "slow query"),
    ("[2024-01-02 15:04:05 +0000] [7] [INFO] Booting worker with pid: 7", JAN, "INFO", "Booting worker with pid: 7"),
    ('INFO:     127.0.0.1:50000 - "GET / HTTP/1.1" 200 OK', None, "INFO", '127.0.0.1:50000 - "GET / HTTP/1.1" 200 OK'),
    ("[2024-01-02 15:04:05,123: INFO/MainProcess] celery@host ready.", JAN, "INFO", "celery@host ready."),
    ("[2024-01-02 15:04:05,123] ERROR in app: Exception on / [GET]", JAN, "ERROR", "Exception on / [GET]"),
    ("[2024-01-02, 15:04:05 UTC] {taskinstance.py:1327} INFO - Executing task", JAN, "INFO", "Executing task"),
    ("2024-01-02 15:04:05 [scrapy.core.engine] INFO: Spider opened", JAN, "INFO", "Spider opened"),
    ("[I 240102 15:04:05 web:2239] 200 GET / (::1) 1.10ms", JAN, "INFO", "200 GET / (::1) 1.10ms"),
    ("[W 2024-01-02 15:04:05.123 ServerApp] 404 GET /x", JAN, "WARNING", "404 GET /x"),
    ("INFO 2024-01-02 15:04:05,123 views 4242 139872 rendered 3 items", JAN, "INFO", "rendered 3 items"),
    ("2024-01-02 15:04:05,123 4242 INFO shopdb odoo.http: HTTP request", JAN, "INFO", "HTTP request"),
    ("[INFO]\t2024-01-02T15:04:05.123Z\t0a1b2c3d-0000-1111-2222-333344445555\tdone", JAN, "INFO", "done"),
    ("[INFO] shop.cart: added", None, "INFO", "added"),
    ("ERROR something broke", None, "ERROR", "something broke"),
    ("error: something broke", None, "ERROR", "something broke"),
    ("\x1b[32m2024-01-02 15:04:05\x1b[0m [\x1b[1minfo\x1b[0m] started", JAN, "INFO", "started"),
    # Java
    ("2024-01-02 15:04:05,123 INFO [main] org.apache.hadoop.App: Created it", JAN, "INFO", "Created it"),
    ("2024-01-02 15:04:05,123 - WARN  [Worker[id=1]/0:0:0:0:2181:Quorum@368] - Cannot open", JAN, "WARNING", "Cannot open"),
    ("2024-01-02 15:04:05.123  INFO 1 --- [           main] c.e.Application  : Started", JAN, "INFO", "Started"),
    ("2024-01-02T15:04:05.123Z ERROR 1 --- [app] [main] c.e.Application : Failed", JAN, "ERROR", "Failed"),
    ("2024-01-02 15:04:05.123 [main] DEBUG com.example.Foo - bar", JAN, "DEBUG", "bar"),
    ("15:04:05.123 [main] INFO  com.example.Foo - bar", at(1970, 1, 1, 15, 4, 5), "INFO", "bar"),
    ("02-Jan-2024 15:04:05.123 INFO [main] org.apache.catalina.Startup.load Done", JAN, "INFO", "Done"),
    ("[2024-01-02 15:04:05,123] INFO Log loaded (kafka.log.Log)", JAN, "INFO", "Log loaded"),
    ("240102 150405 148 INFO dfs.DataNode$PacketResponder: Received it", JAN, "INFO", "Received it"),
    # Containers
    ("2024-01-02T15:04:05.123456789Z stdout F 2024-01-02 15:04:05,123 ERROR shop.cart: x", JAN, "ERROR", "x"),
    ('2024-01-02T15:04:05.1Z stderr F {"level":"warn","msg":"low"}', JAN, "WARNING", "low"),
    ("web-1  | INFO:shop:added", None, "INFO", "added"),
    ("[pod/web-5f/app] ERROR:shop:broken", None, "ERROR", "broken"),
    ("I0102 15:04:05.123456    1234 controller.go:12] Syncing", JAN, "INFO", "Syncing"),
    ("E20240102 15:04:05.123456 1234 main.cc:12] Broken", JAN, "ERROR", "Broken"),
    # Servers
    ('10.0.0.1 - bob [02/Jan/2024:15:04:05 +0100] "GET /a/b HTTP/1.1" 200 512 "-" "curl/8"', JAN - 3600, "INFO", "GET /a/b HTTP/1.1 200"),
    ('10.0.0.1 - - [02/Jan/2024:15:04:05 +0000] "POST /pay HTTP/1.1" 502 0', JAN, "ERROR", "POST /pay HTTP/1.1 502"),
    ('::1 - - [02/Jan/2024:15:04:05 +0000] "GET /x HTTP/2" 404 0', JAN, "WARNING", "GET /x HTTP/2 404"),
    ('127.0.0.1 - - [02/Jan/2024 15:04:05] "GET / HTTP/1.1" 200 -', JAN, "INFO", '127.0.0.1 - - [02/Jan/2024 15:04:05] "GET / HTTP/1.1" 200 -'),
    ("2024/01/02 15:04:05 [error] 77#77: *12 open() failed", JAN, "ERROR", "open() failed"),
    ("[Tue Jan 02 15:04:05 2024] [error] [client 10.0.0.1] File does not exist", JAN, "ERROR", "File does not exist"),
    ("[Tue Jan 02 15:04:05.123 2024] [core:warn] [pid 7:tid 8] [client 10.0.0.1:80] AH00037: x", JAN, "WARNING", "AH00037: x"),
    ("2024-01-02 15:04:05.123 UTC [77] LOG:  checkpoint starting: time", JAN, "INFO", "checkpoint starting: time"),
    ("2024-01-02 15:04:05.123 UTC [77] bob@shop ERROR:  deadlock detected", JAN, "ERROR", "deadlock detected"),
    ("2024-01-02T15:04:05.123456Z 0 [Note] [MY-010116] [Server] ready", JAN, "INFO", "ready"),
    ("77:M 02 Jan 2024 15:04:05.123 * Ready to accept connections", JAN, "INFO", "Ready to accept connections"),
    ("77:M 02 Jan 2024 15:04:05.123 # WARNING overcommit_memory is 0", JAN, "WARNING", "WARNING overcommit_memory is 0"),
    ("[02-Jan-2024 15:04:05 UTC] PHP Fatal error:  Uncaught x", JAN, "CRITICAL", "Uncaught x"),
    ('[2024-01-02T15:04:05.1+00:00] app.INFO: User logged in {"id":7} []', JAN, "INFO", "User logged in"),
    # Go, Rust, Ruby, .NET
    ('2024-01-02T15:04:05.123Z\tINFO\tshop\tcart/cart.go:12\tadded\t{"n": 3}', JAN, "INFO", "added"),
    ("2024/01/02 15:04:05 listening on :8080", JAN, None, "listening on :8080"),
    ("[2024-01-02T15:04:05Z INFO  shop::cart] added", JAN, "INFO", "added"),
    ("2024-01-02T15:04:05.123456Z  INFO shop::cart: added", JAN, "INFO", "added"),
    ("INFO[0042] A group of walrus emerges                      animal=walrus", None, "INFO", "A group of walrus emerges"),
    ("I, [2024-01-02T15:04:05.123456 #77]  INFO -- : Started GET", JAN, "INFO", "Started GET"),
    ("[15:04:05 WRN] Slow", at(1970, 1, 1, 15, 4, 5), "WARNING", "Slow"),
    ("2024-01-02 15:04:05.123 +00:00 [ERR] Failed", JAN, "ERROR", "Failed"),
    # Systems
    ("01-02 15:04:05.123  1702  2395 D WindowManager: opening", JAN, "DEBUG", "opening"),
    ("E/ActivityManager( 1702): died", None, "ERROR", "died"),
    ("Jan  2 15:04:05 combo sshd(pam_unix)[19939]: check pass; user unknown", JAN, None, "check pass; user unknown"),
    ("Jan 02 15:04:05 host sshd[7]: error: Received disconnect", JAN, "ERROR", "error: Received disconnect"),
    ('Jan 02 15:04:05 host app[7]: {"event": "paid", "level": "info"}', JAN, "INFO", "paid"),
    ("<11>Jan  2 15:04:05 host app[7]: broken", JAN, "ERROR", "broken"),
    ("<34>1 2024-01-02T15:04:05.003Z host su - ID47 - 'su root' failed", JAN, "CRITICAL", "'su root' failed"),
    ('<165>1 2024-01-02T15:04:05Z h app 7 ID [x@1 a="b"] started', JAN, "INFO", "started"),
    ("2024-01-02T15:04:05+0000 host app[7]: started", JAN, None, "started"),
    ("[   12.345678] usb 1-1: new device", None, None, "usb 1-1: new device"),
    ("2024-01-02 15:04:05, Info                  CBS    Session initialized", JAN, "INFO", "Session initialized"),
    ("[01.02 15:04:05] chrome.exe *64 - example.com:80 close, 0 bytes", JAN, None, "example.com:80 close, 0 bytes"),
    ("- 1704207845 2024.01.02 dn228 Jan 2 15:04:05 dn228/dn228 crond[2916]: (root) CMD x", JAN, None, "(root) CMD x"),
    ("- 1704207845 2024.01.02 R02-M1 2024-01-02-15.04.05.363779 R02-M1 RAS KERNEL FATAL parity error", JAN, "CRITICAL", "parity error"),
    ("134681 node-246 unix.hw state_change.unavailable 1704207845 1 Component State", JAN, None, "Component State"),
    ("nova.log 2024-01-02 15:04:05.008 25746 INFO nova.wsgi.server [req-1-2 a b - - -] GET", JAN, "INFO", "GET"),
    ("1704207845.123 ERROR boom", JAN, "ERROR", "boom"),
    ("Tue Jan  2 15:04:05 2024 VERIFY OK", JAN, None, "VERIFY OK"),
    # Structured
    ('{"event": "user logged in", "level": "info", "timestamp": "2024-01-02T15:04:05.1Z"}', JAN, "INFO", "user logged in"),
    ('{"asctime": "2024-01-02 15:04:05,123", "levelname": "ERROR", "message": "x"}', JAN, "ERROR", "x"),
    ('{"name":"a","hostname":"h","pid":1,"level":50,"msg":"x","time":"2024-01-02T15:04:05.123Z","v":0}', JAN, "ERROR", "x"),
    ('{"level":30,"time":1704207845123,"pid":1,"hostname":"h","msg":"x"}', JAN + 0.123, "INFO", "x"),
    ('{"level":"warn","ts":1704207845.5,"caller":"a.go:1","msg":"x"}', JAN + 0.5, "WARNING", "x"),
    ('{"log":"ERROR:shop:x\\n","stream":"stderr","time":"2024-01-02T15:04:05.1Z"}', JAN, "ERROR", "x"),
    ('{"log":"{\\"level\\":\\"warn\\",\\"msg\\":\\"x\\"}\\n","stream":"stderr","time":"2024-01-02T15:04:05.1Z"}', JAN, "WARNING", "x"),
    ('{"timeUnixNano":"1704207845000000000","severityNumber":17,"body":{"stringValue":"x"}}', JAN, "ERROR", "x"),
    ('{"Timestamp":"2024-01-02T15:04:05Z","SeverityText":"WARN","Body":"x"}', JAN, "WARNING", "x"),
    ('{"@timestamp":"2024-01-02T15:04:05.1Z","log.level":"error","message":"x"}', JAN, "ERROR", "x"),
    ('{"text":"...","record":{"message":"x","level":{"name":"INFO","no":20},"time":{"timestamp":1704207845.0}}}', JAN, "INFO", "x"),
    ('{"__REALTIME_TIMESTAMP":"1704207845000000","PRIORITY":"3","MESSAGE":"x"}', JAN, "ERROR", "x"),
    ('{"severity":"NOTICE","timestamp":"2024-01-02T15:04:05Z","jsonPayload":{"message":"x"}}', JAN, "INFO", "x"),
    ('{"version":"1.1","short_message":"x","level":4,"timestamp":1704207845}', JAN, "WARNING", "x"),
    ('{"message":"x","context":[],"level":400,"level_name":"ERROR"}', None, "ERROR", "x"),
    ('{"t":{"$date":"2024-01-02T15:04:05.123+00:00"},"s":"W","c":"NETWORK","msg":"x"}', JAN, "WARNING", "x"),
    ('{"levelno": 30, "level": "whatever", "message": "x"}', None, "WARNING", "x"),
    ('time="2024-01-02T15:04:05Z" level=warning msg="low on \\"x\\"" n=3', JAN, "WARNING", 'low on "x"'),
    ("ts=2024-01-02T15:04:05.123Z caller=a.go:1 level=error msg=failed", JAN, "ERROR", "failed"),
    ("event='user logged in' user=17 level='info' timestamp='2024-01-02 15:04:05'", JAN, "INFO", "user logged in"),
    ("at=info method=GET path=/x status=200", None, None, "at=info method=GET path=/x status=200"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "seconds", "severity", "message"), LINES, ids=[x[0][:40] for x in LINES]
)
def test_a_line_of_a_usual_format(line, seconds, severity, message):
    found = LineParser(NOW).parse(line)

    assert (RECORD, seconds, severity, message) == (found[0], found[1], found[2], found[3].rstrip())
