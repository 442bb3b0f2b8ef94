FROM balenalib/raspberrypi4-64-debian:bookworm-run as base
ENV UDEV=on INITSYSTEM=off
RUN install_packages bluez dbus
COPY --from=base /usr/bin/env /usr/bin/env2
CMD ["balena-idle"]
ONBUILD COPY package.json /app/
ONBUILD RUN --mount=type=cache,target=/root/.npm cd /app && npm install
