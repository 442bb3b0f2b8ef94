from busybox:1.36
maintainer Somebody Else <e@example.org>
Env a b c   d
eNv x=1 y="two words" z='$notexpanded' w=with\ space
arg v="default value" w2
label "quoted key"="v" plain=
run	echo	tabs
run ["sh", "-c", "echo \"json\" \u00e9"]
add --chown=1000:$gid --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.org/a.tar.gz /opt/
add a.tar.xz b.tgz [dir] /opt/
copy --parents ./x/**/y.txt /z
copy --exclude=*.md --exclude=docs . .
volume /a /b
expose 8000-8010 53/udp ${v:-9}
user ${u:-nobody}:${g:+grp}
healthcheck none
workdir relative/path with spaces
stopsignal 9
entrypoint exec top -b
cmd -d 1
