/* A reel: the JPEGs that all servers send, each with a stamp of its creation time.
 *
 * File format: for each JPEG its length (32 bits, little-endian) and its bytes. Every JPEG begins with
 *
 *     FF D8  FF FE 00 12  "made_ns:"  eight bytes: CLOCK_MONOTONIC in ns, little-endian
 *
 * which is a JPEG comment that decoders skip. The server writes the stamp when the frame is due. The clock is the same in
 * every process of the machine, so the reader of the last byte knows the age to the microsecond.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STAMP_BEGIN "\xff\xd8\xff\xfe\x00\x12made_ns:"
#define STAMP_OFFSET 14
#define STAMP_END (STAMP_OFFSET + 8)

typedef struct {
    unsigned char *data;
    size_t size;
} picture_t;

typedef struct {
    picture_t *pictures;
    size_t count;
    size_t largest;
} reel_t;

static inline uint64_t now_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void write_stamp(unsigned char *jpeg, uint64_t made_ns) {
    for (int i = 0; i < 8; i++)
        jpeg[STAMP_OFFSET + i] = (unsigned char)(made_ns >> (8 * i));
}

/* Returns 0 if the bytes do not start with a stamp. */
static inline uint64_t read_stamp(const unsigned char *jpeg, size_t size) {
    if (size < STAMP_END || memcmp(jpeg, STAMP_BEGIN, STAMP_OFFSET) != 0)
        return 0;
    uint64_t made_ns = 0;
    for (int i = 0; i < 8; i++)
        made_ns |= (uint64_t)jpeg[STAMP_OFFSET + i] << (8 * i);
    return made_ns;
}

/* Returns 0, or -1 if the file is missing or not a reel. */
static inline int load_reel(const char *path, reel_t *reel) {
    memset(reel, 0, sizeof *reel);
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return -1;
    unsigned char length[4];
    while (fread(length, 1, 4, file) == 4) {
        size_t size = length[0] | (size_t)length[1] << 8 | (size_t)length[2] << 16 | (size_t)length[3] << 24;
        picture_t *grown = realloc(reel->pictures, (reel->count + 1) * sizeof *grown);
        unsigned char *data = malloc(size);
        if (grown == NULL || data == NULL || fread(data, 1, size, file) != size || size < STAMP_END) {
            fclose(file);
            return -1;
        }
        reel->pictures = grown;
        reel->pictures[reel->count++] = (picture_t){data, size};
        if (size > reel->largest)
            reel->largest = size;
    }
    fclose(file);
    return reel->count ? 0 : -1;
}
