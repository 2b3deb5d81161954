/* tern: tensors on any device. One include for everything; docs/guide.md is the tour. */
#ifndef TERN_TERN_H_
#define TERN_TERN_H_
#include <tern/backend.h>
#include <tern/base.h>
#include <tern/tensor.h>
#include <tern/ops.h>
#include <tern/device.h>
#include <tern/io.h>
#include <tern/data.h>
#include <tern/tape.h>
#include <tern/graph.h>
#include <tern/train.h>
#include <tern/nn.h>
#endif
