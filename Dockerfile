# The image: the static binary, and the certificates that it trusts. scripts/build-image builds it without a daemon.
# --build-arg PROFILE=dev makes a quick one for tests, FEATURES=kube one that can watch EndpointSlices.

FROM docker.io/library/rust:1.95-bookworm AS build
ARG PROFILE=release
ARG FEATURES=
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The target is named so that the flags hold for the program alone, not for what builds it. Kernels for arm64 have pages of
# up to 64 KiB; jemalloc takes all up to the one that it was built for.
ENV AARCH64_UNKNOWN_LINUX_GNU_JEMALLOC_SYS_WITH_LG_PAGE=16
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --features "$FEATURES" --profile "$PROFILE" --target "$target" \
 && install -D -s "target/$target/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")/pushbridge" /out/pushbridge

FROM scratch
LABEL org.opencontainers.image.title="pushbridge" \
      org.opencontainers.image.description="Turns a backend's POST into SSE, WebSocket and long poll" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/pushbridge /pushbridge
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Probes and `pushbridge drain` find the program as a command as well.
ENV PATH=/
USER 65532:65532
EXPOSE 8080 8443 5561 9901
ENTRYPOINT ["/pushbridge"]
CMD ["run"]
