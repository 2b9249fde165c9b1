# docker build -t denokv .
# docker run -p 4512:4512 -v denokv:/data -e DENO_KV_ACCESS_TOKEN=<token> denokv
FROM denoland/deno:2.9.6

# Owned by the image's own user, so that a fresh volume is too.
RUN install -d -o deno -g deno -m 0700 /data
WORKDIR /app
COPY deno.json deno.lock* main.ts LICENSE ./
COPY src src
USER deno
RUN deno cache main.ts

ENV DENO_KV_SQLITE_PATH=/data/denokv.sqlite DENO_NO_UPDATE_CHECK=1
VOLUME /data
EXPOSE 4512

HEALTHCHECK --interval=30s --timeout=10s --start-period=10s \
  CMD ["deno", "run", "--no-prompt", "--cached-only", "--allow-net=127.0.0.1", "--allow-env=PORT", "main.ts", "health"]

# No shell in between: SIGTERM reaches the server, which drains (5 s at most)
# and closes the database (3 s more): less than the 10 s that Docker gives it.
# /run/secrets is where an access token file is mounted.
ENTRYPOINT ["deno", "run", "--no-prompt", "--cached-only", "--v8-flags=--max-semi-space-size=4", "--allow-net=0.0.0.0", "--allow-read=/data,/run/secrets", "--allow-write=/data", "--allow-env=DENO_KV_SQLITE_PATH,DENO_KV_ACCESS_TOKEN,DENO_KV_ACCESS_TOKEN_FILE,KVSTORE_SECRET,DENO_KV_PUBLIC_READS,PORT,DENO_KV_NUM_WORKERS,DENO_KV_ATOMIC_WRITE_BATCH_TIMEOUT_MS,DENO_KV_MAX_WATCHES,DENO_KV_MAX_IN_FLIGHT_MIB,DENO_KV_CORS_ORIGIN,DENO_KV_ACCESS_LOG,DENO_KV_MAX_WAITING_MIB,DENO_KV_DISK_RESERVE_MIB,DENO_KV_DRAIN_TIMEOUT_MS,DENO_KV_BACKUP,DENO_KV_S3_BUCKET,DENO_KV_S3_PREFIX,DENO_KV_S3_ENDPOINT,DENO_KV_GCS_ENDPOINT,DENO_KV_DURABILITY,DENO_KV_BACKUP_INTERVAL,DENO_KV_BACKUP_RETENTION,DENO_KV_BACKUP_MAX_LOG_MIB,DENO_KV_BACKUP_LEASE,DENO_KV_KEEP_ASIDE,DENO_KV_VERIFY_EVERY,DENO_KV_ALLOW_UNFENCED_BACKUP,DENO_KV_DEV,DENO_KV_LOG_FORMAT,DENO_KV_LOG_LEVEL", "main.ts"]
CMD ["serve"]
