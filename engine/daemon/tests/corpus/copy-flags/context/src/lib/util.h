src/lib/util.h
