// Where frame.cuh has its fields, in the order of frame.py.
#include "common.cuh"
#include "frame.cuh"

#define AT(type, field) static_cast<int32_t>(__builtin_offsetof(type, field))

KERNEL probe(int32_t* frame, int32_t* result, int32_t* constants) {
  const int32_t of_frame[] = {
      AT(Frame, points), AT(Frame, most), AT(Frame, max_detections), AT(Frame, min_range2),
      AT(Frame, intensity_scale), AT(Frame, nms_iou), AT(Frame, nms_iou_across),
      AT(Frame, moved), AT(Frame, thresholds), AT(Frame, groups), AT(Frame, motion),
      AT(Frame, ego_low), AT(Frame, ego_high), sizeof(Frame)};
  const int32_t of_result[] = {
      AT(Result, count), AT(Result, flags), AT(Result, candidates), AT(Result, in_range),
      AT(Result, pillars), AT(Result, considered), AT(Result, pairs), AT(Result, rows),
      sizeof(Result)};
  for (int32_t i = 0; i < 14; ++i) frame[i] = of_frame[i];
  for (int32_t i = 0; i < 9; ++i) result[i] = of_result[i];
  constants[0] = MOST_ROWS;
  constants[1] = NAN_SCORE;
  constants[2] = BAD_BOX;
  constants[3] = AT(ResultWithVelocities, velocities);
  constants[4] = sizeof(ResultWithVelocities);
}
