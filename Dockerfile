# The service as one image: the parent process and everything that it supervises. Data lies in /data.
FROM python:3.11-slim-bookworm

# initdb (embedded database) and the sandbox want an account with a name; it owns nothing but /data.
RUN useradd --uid 10001 --create-home --home-dir /home/turnout --shell /usr/sbin/nologin turnout \
    && install -d -o turnout -g turnout -m 0700 /data

WORKDIR /opt/turnout
COPY requirements/run.lock requirements/run.lock
COPY pyproject.toml ./
COPY tools/bootstrap.py tools/bootstrap.py
RUN python tools/bootstrap.py .venv requirements/run.lock .venv/.run
COPY . .
RUN .venv/bin/python -m compileall -q app migrations

USER turnout
ENV PATH=/opt/turnout/.venv/bin:$PATH \
    TURNOUT_HOME=/data \
    TURNOUT_HOST=0.0.0.0
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["turnout"]
CMD ["serve"]
