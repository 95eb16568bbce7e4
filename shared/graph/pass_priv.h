#pragma once
/* Passes: what their files share. */
#include "shared/graph/rewrite.h"

/* The node becomes another operator, without attributes; inputs and outputs stay. */
void pass_become(struct node *node, enum op op);

/* pass_activations.c: a rule of pass_canonicalise. */
int pass_activation(struct rewrite *r, int n, struct err *err);
