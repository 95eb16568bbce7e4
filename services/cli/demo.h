#pragma once
/*
 * The demo: a data set of small pictures, drawn by seed, and a network that was trained on such.
 *
 * Ten classes of drawn things (arrow, circle, cross, heart, moon, ring, square, star, stripes,
 * triangle), 32x32 RGB, in all colours, sizes, places and rotations, before cluttered backgrounds
 * with small things of other classes, partly hidden, noisy. A good small network gets 95 to 98 %.
 * Only the basic operations of IEEE 754 are used, no function of libm: the same seed gives the same
 * bytes on every x86-64.
 */
#include <stdint.h>

#include "shared/base/err.h"

#define DEMO_SEED 20240229
#define DEMO_CLASSES 10
#define DEMO_SIZE 32
#define DEMO_TRAIN 500 /* of each class */
#define DEMO_TEST 200

/* Writes DIR/data/train/<class>/NNNN.png, DIR/data/test/<class>/NNNN.png, DIR/README.txt and, where
 * model_from is not NULL, DIR/model.onnx, a copy of it. What is there already is written over. */
int demo_write(const char *dir, const char *model_from, uint64_t seed, struct err *err);

const char *demo_class_name(int label);
/* One picture, [DEMO_SIZE][DEMO_SIZE][3]; `index` numbers the pictures of all classes and parts. */
void demo_draw(uint64_t seed, uint64_t index, int label, uint8_t rgb[DEMO_SIZE * DEMO_SIZE * 3]);
