# docker build -t denokv .
# docker run -p 4512:4512 -v denokv:/data -e DENO_KV_ACCESS_TOKEN=<token> denokv
FROM denoland/deno:2.9.6

# Owned by the image's own user, so that a fresh volume is too.
RUN install -d -o deno -g deno -m 0700 /data
WORKDIR /app
COPY deno.json deno.lock* denokv.ts main.ts LICENSE ./
COPY src src
# The launcher: it becomes a deno with the permissions that the command line,
# the variables and the backup need, and no others (docs/decisions/launcher.md).
# Its cache is left behind: the image's own belongs to the image's user.
RUN DENO_DIR=/tmp/install deno install -g -n denokv --root /usr/local \
  --quiet --no-prompt --cached-only --allow-env --allow-read --allow-ffi --allow-run denokv.ts \
  && rm -r /tmp/install
USER deno
# The packages of a backup, so that a start asks no registry. Its modules are
# named: what main.ts may load later does not fail the build where it is missing.
RUN deno cache --quiet main.ts src/object_store/s3.ts src/object_store/gcs.ts

# It listens everywhere, also with --dev; the health check, which knows none of
# the server's flags, finds the address in the file.
ENV DENO_KV_SQLITE_PATH=/data/denokv.sqlite DENO_KV_HOST=0.0.0.0 DENO_KV_ADDRESS_FILE=/tmp/denokv-address
VOLUME /data
EXPOSE 4512

HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["denokv", "health"]

# The launcher is replaced by the server, so that SIGTERM reaches it. It drains
# (5 s at most) and closes the database (3 s more): less than the 10 s that
# Docker gives it.
ENTRYPOINT ["denokv"]
CMD ["serve"]
