/*
 * mutant.h: planted bugs. Where code does something that must not be left out, MUTANT(n) stands beside it and leaves it out.
 *
 * In a product it is the constant false. A build with OXBOW_MUTANTS (oxbow-sim-mutants) turns one bug on at a time, and shows that the
 * simulator catches it; sim/pool_mutants.c and sim/cluster_mutants.c say what each number is.
 */
#ifndef OXBOW_BASE_MUTANT_H
#define OXBOW_BASE_MUTANT_H

extern unsigned mutant_active; /* 0: none */

#ifdef OXBOW_MUTANTS
#define MUTANT(n) (mutant_active == (n))
#else
#define MUTANT(n) false
#endif

#endif
